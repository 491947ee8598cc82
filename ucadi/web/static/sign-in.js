document.getElementById("refused").hidden = location.search !== "?refused";
document.getElementById("token").focus();
